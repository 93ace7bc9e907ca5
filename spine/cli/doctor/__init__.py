"""`spine doctor`: one module per component of an installation. Each module observes its component and judges it."""
