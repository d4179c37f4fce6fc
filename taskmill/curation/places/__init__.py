"""Where sources lie: local paths, archives and Hub repositories, each turned into a folder before a reader sees it."""
