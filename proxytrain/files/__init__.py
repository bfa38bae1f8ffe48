"""Files that are whole or absent, and JSON documents as typed classes."""
