"""Reads the configuration, builds the services, wires them, runs them."""

VERSION = "0.1.0"
