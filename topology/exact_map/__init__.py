"""The exact map: which physical GPU each rank of a mesh sits on, what that splits, and what stays spare."""
