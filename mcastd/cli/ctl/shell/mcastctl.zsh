#compdef mcastctl
# zsh completion of mcastctl; install it as _mcastctl in a directory of fpath. The program itself knows the words: it gets the line
# up to the cursor, and answers with one kind ("words", or "file" where a path is wanted) and word:description for each that fits.
_mcastctl() {
    local -a reply described
    reply=("${(@f)$(_MCASTCTL_COMPLETE=zsh_complete _MCASTCTL_LINE="${words[1,CURRENT]}" ${words[1]} 2>/dev/null)}")
    if [[ ${reply[1]} == file ]]; then
        _files
        return
    fi
    described=("${(@)reply[2,-1]}")
    (( ${#described} )) && _describe -V mcastctl described
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _mcastctl "$@"
else
    compdef _mcastctl mcastctl
fi
