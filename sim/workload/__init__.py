"""A model's layers as operators with floating point operations, bytes and shapes."""
