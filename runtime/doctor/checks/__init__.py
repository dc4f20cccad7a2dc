"""The checks of the bare motorvae-doctor, a module for each subject."""
