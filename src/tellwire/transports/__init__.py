"""The doors: one module for each technique, all on one port and with the same promises."""
