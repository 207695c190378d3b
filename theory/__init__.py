"""The statements about collapse and flatness, as programs."""
