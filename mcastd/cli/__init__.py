"""Programs: mcastd."""
