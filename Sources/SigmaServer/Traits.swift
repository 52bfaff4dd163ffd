#if !Server
    #error("The server needs the package's trait: use make, or swift build --traits Server.")
#endif
