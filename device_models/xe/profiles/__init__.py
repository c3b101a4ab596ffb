"""What differs between cards and IP versions, as data."""
