"""Images from files, and the manifests that list them."""
