"""Measurements that print only what they measured, and the demo."""
