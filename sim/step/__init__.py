"""One training step in closed form: time with an interval, memory, and what they are made of."""
