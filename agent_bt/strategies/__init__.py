"""Rule strategies behind the one Strategy protocol."""
