"""The methods, one paper per file, behind one interface (`gopro.methods.base.Method`)."""
