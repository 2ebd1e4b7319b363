"""Who a person is: accounts, sessions and invitations."""
