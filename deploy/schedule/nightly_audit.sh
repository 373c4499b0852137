#!/usr/bin/env bash
# Score tonight's pairs, judge them by rules and by the last good night, report, and tell a webhook.
# Started again, it goes on where it broke off. README.md beside it tells more.
set -euo pipefail

readonly OK=0 USAGE=2 REFUSED=3

usage() {
  cat <<'END'
usage: nightly_audit.sh [FLAG OF PIPELINE.RUN]...   such as --losses=lpips_vgg,ssim

environment:
  AUDIT_INPUT        files or patterns of tonight's pairs, local or gs://
  AUDIT_RULES        file of rules; `pairloss audit propose` writes a first one
  AUDIT_DIR          local directory that keeps the runs and the baselines
  AUDIT_NIGHT        the night's date, default: today's
  AUDIT_WEBHOOK_URL  where to post the verdict, default: nowhere; a secret
  PYTHON             a Python that has pairloss installed, default: python3

exit codes: 0 passed, 1 broke off (start it again), 2 wrong request, 3 the gate failed
END
}

say() { printf 'nightly_audit: %s\n' "$*" >&2; }

refuse() {
  say "error: $*"
  exit "$USAGE"
}

check_settings() {
  local name
  for name in AUDIT_INPUT AUDIT_RULES AUDIT_DIR; do
    [[ -n ${!name:-} ]] || refuse "$name is not set; see --help"
  done
  [[ $AUDIT_NIGHT =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || refuse "AUDIT_NIGHT=$AUDIT_NIGHT is not a date such as 2026-01-31"
  # Scoring takes hours; what would fail after it is better told before.
  [[ -r $AUDIT_RULES ]] || refuse "AUDIT_RULES=$AUDIT_RULES cannot be read"
  [[ $AUDIT_DIR != *://* ]] || refuse "AUDIT_DIR=$AUDIT_DIR is not local"
  mkdir -p -- "$AUDIT_DIR/runs" "$AUDIT_DIR/baselines" || refuse "AUDIT_DIR=$AUDIT_DIR cannot be written to"
}

# The last good night before this one, so that a night that is judged again has the same baseline as before.
find_baseline() {
  local file night
  shopt -s nullglob
  for file in "$AUDIT_DIR"/baselines/????-??-??.json; do
    night=$(basename "$file" .json)
    [[ $night < $AUDIT_NIGHT ]] && baseline=$file
  done
  return 0
}

# The night before this one, so that only files that have changed since are scored.
find_earlier_run() {
  local directory
  shopt -s nullglob
  for directory in "$AUDIT_DIR"/runs/????-??-??; do
    [[ $(basename "$directory") < $AUDIT_NIGHT && -e $directory/run.json ]] && earlier=$directory
  done
  return 0
}

score() {
  if [[ -e $run/_SUCCESS ]]; then
    say "$run is scored already"
    return
  fi
  local code=0
  "$python" -m pipeline.run --input="$AUDIT_INPUT" --output="$run" --quiet=true \
    ${earlier:+"--reuse=$earlier"} "$@" || code=$?
  # A run that scored nothing has ended, too, and the gate is to say so.
  ((code == OK || code == REFUSED)) || exit "$code"
}

keep_baseline() {
  local kept=$AUDIT_DIR/baselines/$AUDIT_NIGHT.json
  if ((verdict == OK)); then
    cp -- "$run/summary.json" "$kept.part"
    mv -- "$kept.part" "$kept"
  else
    # An earlier judgement, by other rules, may have kept it.
    rm -f -- "$kept"
  fi
}

notify() {
  # Started again, it repeats no verdict that was delivered.
  if [[ -z ${AUDIT_WEBHOOK_URL:-} ]] || cmp -s -- "$run/verdict.json" "$run/notified.json"; then
    return
  fi
  if AUDIT_WEBHOOK_URL=$AUDIT_WEBHOOK_URL "$python" "$here/notify_webhook.py" "$run/verdict.json"; then
    cp -- "$run/verdict.json" "$run/notified.json"
  fi
}

if [[ ${1:-} == --help ]]; then
  usage
  exit "$OK"
fi

AUDIT_NIGHT=${AUDIT_NIGHT:-$(date +%Y-%m-%d)}
# The address is a secret: only what posts to it gets to see it.
export -n AUDIT_WEBHOOK_URL
python=${PYTHON:-python3}
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
check_settings
run=$AUDIT_DIR/runs/$AUDIT_NIGHT
baseline=
find_baseline
earlier=
find_earlier_run

score "$@"

verdict=0
"$python" -m pipeline.audit gate "$run" --rules="$AUDIT_RULES" ${baseline:+"--baseline=$baseline"} || verdict=$?
((verdict == OK || verdict == REFUSED)) || exit "$verdict"

keep_baseline
"$python" -m pipeline.audit report "$run" ${baseline:+"--baseline=$baseline"} ||
  say "warning: there is no report; the verdict stands"
notify
exit "$verdict"
