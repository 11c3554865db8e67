"""The endpoints: parse, one call, render."""
