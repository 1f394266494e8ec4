"""One spelling for each thing: neurons, quantisers and branches, however a network writes them."""
