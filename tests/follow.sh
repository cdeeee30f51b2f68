#!/bin/bash
# Follows a page as a reader does: types the commands of its fenced blocks, each at its machine, and
# holds what they print against what the page shows.
#
#   tests/follow.sh PAGE MACHINE=PROGRAM...
#
# A block that begins with "```sh MACHINE" is typed at that machine, line by line: PROGRAM gets the
# line as its only argument. Every command has to end well. A block "```text" below it shows what the
# last command prints: each of its lines has to be found, in this order, where "…" stands for
# anything and blanks count as one. What is not there yet may come within half a minute: the command
# is typed again. It may also end with 1 then, by which mtun says that something is not as configured.
# A block "```sh" without a machine is a fault of the page.
set -euo pipefail
page="$1"
shift
declare -A programs
for machine in "$@"; do
    programs["${machine%%=*}"]="${machine#*=}"
done
patience=30

fail() {
    echo "follow: $page:$number: $*" >&2
    exit 1
}

typed="" # what the last command was, where, what it has said and how it ended
at=""
said=""
ended=0
run() {
    ended=0
    said="$("${programs[$at]}" "$typed" 2>&1)" || ended=$?
}
settle() {
    [ "$ended" = 0 ] || fail "\`$typed\` failed ($ended) at $at:
$said"
}

# Whether the lines of the page are in what was said, in their order.
shown() {
    awk -v page="$1" -v said="$said" '
        function plain(text) { gsub(/[ \t]+/, " ", text); sub(/^ /, "", text); sub(/ $/, "", text); return text }
        BEGIN {
            wanted = split(page, want, "\n"); got = split(said, have, "\n"); next_line = 1
            for (i = 1; i <= wanted; i++) {
                line = plain(want[i])
                gsub(/ ?… ?/, "…", line)
                if (line == "" || line == "…") continue
                parts = split(line, part, "…"); found = 0
                for (; next_line <= got && !found; next_line++) {
                    rest = plain(have[next_line]); found = 1
                    for (p = 1; p <= parts; p++) {
                        place = index(rest, part[p])
                        if (part[p] != "" && (place == 0 || (p == 1 && place != 1))) { found = 0; break }
                        if (part[p] != "") rest = substr(rest, place + length(part[p]))
                    }
                    if (found && part[parts] != "" && rest != "") found = 0
                }
                if (!found) { print "not printed: " line; exit 1 }
            }
        }'
}

number=0
block=""
machine=""
text=""
line=""
while IFS= read -r read_line || [ -n "$read_line" ]; do
    number=$((number + 1))
    case "$block" in
    commands)
        if [ "$read_line" = '```' ]; then
            [ -z "$line" ] || fail "a command that goes on and does not"
            block=""
        elif [[ "$read_line" == *\\ ]]; then
            line+="${read_line%\\}"
        elif [ -n "$line$read_line" ]; then
            settle
            at="$machine" typed="$line$read_line" line=""
            [ -n "${programs[$at]:-}" ] || fail "no machine is called \`$at\`"
            echo "$at# $typed"
            run
        fi
        ;;
    text)
        if [ "$read_line" = '```' ]; then
            block=""
            end=$((SECONDS + patience))
            until missing="$(shown "$text")" && [ "$ended" -le 1 ]; do
                [ "$SECONDS" -lt "$end" ] || fail "$missing, by \`$typed\` ($ended) at $at:
$said"
                sleep 0.3
                run
            done
            text="" ended=0
        else
            text+="$read_line"$'\n'
        fi
        ;;
    other) [ "$read_line" != '```' ] || block="" ;;
    *)
        case "$read_line" in
        '```sh '*) block=commands machine="${read_line#\`\`\`sh }" ;;
        '```sh') fail "a command that is typed nowhere" ;;
        '```text') block=text ;;
        '```'*) block=other ;;
        esac
        ;;
    esac
done <"$page"
[ -z "$block" ] || fail "a block that does not end"
settle
[ -n "$typed" ] || fail "a page without a command"
