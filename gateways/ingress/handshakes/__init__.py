"""Handshakes of webhook senders: requests that are answered at once and never become events."""
