"""Caches on other machines: what ``--cache-from`` and ``--cache-to`` name (rows RCH-01…RCH-18).

``spec`` reads the command line's form, ``backend`` says what a place for caches must be able to do, and one
file per kind of place does it. ``matching`` finds the results of an import that fit the steps of a build;
``exporting`` and ``inline`` turn a build's results into a cache. Everything that comes from such a place is
checked like a registry's reply: a cache can give wrong content for the keys that it names, and nothing else.
"""
