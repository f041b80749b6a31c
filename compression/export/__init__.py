"""Exporters, one per target: `refusal` names the gene that the target cannot run, `export` writes its artifact."""
