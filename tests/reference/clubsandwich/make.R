## Robust covariances by clubSandwich of models by lme4 and nlme, written to results.json:
##     Rscript tests/reference/clubsandwich/make.R
## Needs R with clubSandwich, lme4, nlme and jsonlite. `fev` is ../mmrm/fev.csv; the others come with lme4 and nlme.
suppressMessages({library(lme4); library(nlme); library(clubSandwich); library(jsonlite)})
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
fev <- read.csv(file.path(here, "..", "mmrm", "fev.csv"), stringsAsFactors = TRUE)
fev <- fev[!is.na(fev$FEV1), ]
fev$INVERSE <- 1 / fev$WEIGHT
oats <- as.data.frame(Oats)
oats$Block <- factor(as.character(oats$Block))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 1e-3, rhoend = 1e-12, maxfun = 1e5))
fine <- glsControl(opt = "nlminb", msTol = 1e-14, tolerance = 1e-12, msMaxIter = 1000, maxIter = 1000)

report <- function(name, model, cluster, data, tested = NULL) {
  beta <- if (inherits(model, "gls")) coef(model) else fixef(model)
  tested <- if (is.null(tested)) seq_along(beta)[-1] else tested
  one <- function(type) {
    v <- vcovCR(model, type = type, cluster = data[[cluster]])
    t <- coef_test(model, v, test = "Satterthwaite")
    w <- Wald_test(model, constrain_zero(tested, coefs = beta), v, test = "HTZ")
    list(se = t$SE, df = t$df_Satt, F = w$Fstat, den_df = w$df_denom, p = w$p_val)
  }
  # a cluster with leverage 1 has no CR3 there
  kinds <- Filter(function(k) !inherits(try(vcovCR(model, type = k, cluster = data[[cluster]]), TRUE), "try-error"),
                  c("CR0", "CR1", "CR2", "CR3"))
  list(name = name, cluster = cluster, names = names(beta), estimate = unname(beta), tested = I(names(beta)[tested]),
       kinds = setNames(lapply(kinds, one), kinds))
}

out <- list(
  report("slopes", lmer(Reaction ~ Days + (Days | Subject), sleepstudy, control = tight), "Subject", sleepstudy),
  report("nested", lmer(yield ~ nitro * Variety + (1 | Block / Variety), oats, control = tight), "Block", oats, c(2, 3)),
  report("fixed blocks", lmer(yield ~ nitro + Variety + Block + (1 | Block:Variety), oats, control = tight),
         "Block", oats, c(2, 3)),
  report("autoregressive with weights",
         gls(FEV1 ~ ARMCD, fev, corAR1(form = ~ VISITN | USUBJID), varFixed(~INVERSE), control = fine), "USUBJID", fev),
  report("unstructured",
         gls(FEV1 ~ ARMCD * AVISIT, fev, corSymm(form = ~ VISITN | USUBJID), varIdent(form = ~ 1 | AVISIT), control = fine),
         "USUBJID", fev))
write(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = 1), file.path(here, "results.json"))
