"""What a search may be asked for: parameters, filters, pages."""
