"""PURE. What goes over the wire: head fields and what a proxy must do with each, and framing."""
