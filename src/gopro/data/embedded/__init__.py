"""The data sets that come with gopro: emoji in scenes, and photographs."""
