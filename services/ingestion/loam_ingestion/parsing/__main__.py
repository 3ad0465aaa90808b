from loam_ingestion.parsing.zygote import main

if __name__ == "__main__":
    main()
