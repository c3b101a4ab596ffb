"""DEVICE_SET_IRQS: wiring vectors to eventfds, and everything that must be refused."""
