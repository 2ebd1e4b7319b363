"""The control plane: plans, tenants, operators and provisioning, all of it in the shared schema `platform`."""
