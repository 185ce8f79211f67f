"""What is said about an image beside it: provenance and SBOM, as in-toto statements.

Values and pure functions: what was asked for, the facts of a build, and the documents made of them.
``builder.build.attesting`` gathers the facts, ``builder.exporter.attestations`` publishes the documents.
"""
