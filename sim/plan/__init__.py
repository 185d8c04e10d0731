"""The plan: instructions, text form, lowering and checks; one contract for three readers."""
