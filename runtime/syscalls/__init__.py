"""System calls behind one protocol: ``linux`` makes them, ``recording`` only writes them down."""
