# fish completion of mcastctl. The program itself knows the words: it gets the line up to the cursor, and answers with one kind
# ("words", or "file" where a path is wanted) and word<tab>description for each that fits.
function __mcastctl_complete
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    set -l reply (env _MCASTCTL_COMPLETE=fish_complete _MCASTCTL_LINE="$line" mcastctl 2>/dev/null)
    if test "$reply[1]" = file
        __fish_complete_path (commandline --current-token)
    else if test (count $reply) -gt 1
        printf '%s\n' $reply[2..-1]
    end
end
complete --no-files --command mcastctl --arguments '(__mcastctl_complete)'
