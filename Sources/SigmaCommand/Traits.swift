#if !Commands
    #error("The commands need the package's traits: use make, or swift build --traits Server.")
#endif
