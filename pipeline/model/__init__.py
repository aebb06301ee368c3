"""What a stage author sees: exchanges, components and their options."""
