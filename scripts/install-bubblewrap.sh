#!/bin/sh
# Install bubblewrap where this is possible without asking anybody; otherwise say the one line that does.
if command -v apt-get >/dev/null 2>&1; then line="apt-get install -y bubblewrap"
elif command -v dnf >/dev/null 2>&1; then line="dnf install -y bubblewrap"
elif command -v pacman >/dev/null 2>&1; then line="pacman -S --noconfirm bubblewrap"
elif command -v apk >/dev/null 2>&1; then line="apk add bubblewrap"
else line="install the package bubblewrap"; fi
if [ "$(id -u)" = 0 ]; then
    echo "installing bubblewrap: $line"
    if [ "${line%% *}" = apt-get ]; then
        sh -c "$line" >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1; sh -c "$line" >/dev/null 2>&1; }
    else
        sh -c "$line" >/dev/null 2>&1
    fi
    command -v bwrap >/dev/null 2>&1 && exit 0
fi
echo "asi: bubblewrap is missing, trials will run in a weaker sandbox. As root: $line"
