"""Values of more axes than Core ML has, computed with fewer."""
