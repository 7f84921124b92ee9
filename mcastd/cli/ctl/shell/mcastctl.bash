# bash completion of mcastctl. The program itself knows the words: it gets the line up to the cursor, and answers with one kind
# ("words", or "file" where a path is wanted) and the words that fit.
_mcastctl() {
    local -a reply
    mapfile -t reply < <(
        _MCASTCTL_COMPLETE=bash_complete _MCASTCTL_LINE="${COMP_LINE:0:COMP_POINT}" _MCASTCTL_BREAKS="$COMP_WORDBREAKS" \
            "${COMP_WORDS[0]}" 2>/dev/null
    )
    COMPREPLY=("${reply[@]:1}")
    if [[ ${reply[0]} == file ]]; then
        compopt -o default
    fi
}
complete -F _mcastctl mcastctl
