"""What the commands do: who is judged, by which gate, and what becomes of it."""
