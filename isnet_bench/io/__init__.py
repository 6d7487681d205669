"""Files, errors and provenance: what every floor above needs, without torch."""
