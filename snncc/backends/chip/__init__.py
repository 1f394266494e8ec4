"""Chips to compile for: what one holds, and how much of it a network would take."""
