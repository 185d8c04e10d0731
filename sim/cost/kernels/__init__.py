"""Time of a kernel on a GPU: physics of its shape, measured curves, a few constants per GPU and release."""
