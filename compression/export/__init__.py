"""Exporters, one per target: `unsupported_reason` names the gene in the way, `export` writes the artifact."""
