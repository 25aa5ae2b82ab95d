# bash completion for kelp: everything is answered by `kelp __complete`, from the declaration of the options.

_kelp() {
  local line=$COMP_LINE word typed text words=() glued=0 i
  # Bash splits words at = and : as well; what stands together in the line is put together again.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if ((glued)); then words[${#words[@]} - 1]+=$word; else words+=("$word"); fi
    line=${line#"${line%%[![:space:]]*}"}
    line=${line#"$word"}
    glued=0
    [[ -z $line || $line == [[:space:]]* ]] || glued=1
  done
  typed=${words[${#words[@]} - 1]}
  # The part before the last such character is there already, as far as bash is concerned.
  local before='' rest=$typed
  if [[ $COMP_WORDBREAKS == *:* && $typed == *:* || $COMP_WORDBREAKS == *=* && $typed == *=* ]]; then
    [[ $COMP_WORDBREAKS == *:* ]] && rest=${rest##*:}
    [[ $COMP_WORDBREAKS == *=* ]] && rest=${rest##*=}
    before=${typed%"$rest"}
  fi
  COMPREPLY=()
  while IFS=$'\t' read -r text _; do
    text=${text#"$before"}
    case $text in
      *[/=:,]) compopt -o nospace ;;
    esac
    [[ $text == *[\ \'\"\\\$\;\&\|\<\>\(\)]* ]] && printf -v text '%q' "$text"
    COMPREPLY+=("$text")
  done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}

complete -F _kelp kelp
