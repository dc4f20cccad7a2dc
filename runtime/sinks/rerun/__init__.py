"""The live view: rows as the Rerun viewer shows them."""
