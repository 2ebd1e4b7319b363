"""What `make bench` runs: the product beside itself without tenancy, and beside the driver alone."""
