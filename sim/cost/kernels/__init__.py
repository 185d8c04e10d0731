"""Time of a kernel on a GPU: physics of its shape joined with measured curves, and a few constants per GPU and release."""
