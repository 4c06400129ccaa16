"""What `import triune` offers: models loaded without a server, and conversions. The command line uses it, too."""
