"""Sessions spread over worker processes behind one address: a front that passes calls on, and workers that do them."""
