"""The Lava backend: a Program as processes of Intel's Lava, in a directory that runs by itself."""
